import com.pixelmed.dicom.AttributeList;
import com.pixelmed.dicom.TagFromName;
import com.pixelmed.validate.DicomInstanceValidator;
import com.pixelmed.validate.DicomSRValidator;

/**
 * Holds many files against one of PixelMed's validators in one virtual machine.
 *
 * <p>PixelMed's own commands take one file each, and spend most of their time on their style sheets.
 *
 * <p>Arguments: the validator's name, then the files. Each answer follows a line "File NAME".
 */
class PixelMedFiles {
    interface Validator {
        String validate(AttributeList list) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        Validator validator =
                switch (arguments[0]) {
                    case "DicomSRValidator" -> new DicomSRValidator()::validate;
                    case "DicomInstanceValidator" -> new DicomInstanceValidator()::validate;
                    default -> throw new IllegalArgumentException("no such validator: " + arguments[0]);
                };
        for (int i = 1; i < arguments.length; i++) {
            AttributeList list = new AttributeList();
            list.read(arguments[i], TagFromName.PixelData);
            System.out.println("File " + arguments[i]);
            System.out.println(validator.validate(list));
        }
    }
}
